import { gramSync, gramVjpSync, gramReduceSync, mmdSync, kernels, tensor, zeros, threads } from "./lib/index.js";
const N=4096,D=768;const rn=(n:number)=>Float32Array.from({length:n},()=>Math.sqrt(-2*Math.log(1-Math.random()))*Math.cos(6.2831853*Math.random()));
const x=tensor(rn(N*D),[N,D]),y=tensor(rn(N*D),[N,D]),u=tensor(rn(N*N),[N,N]);
const out={gram:zeros([N,N],"f32")},o2={x:zeros([N,D],"f32"),y:zeros([N,D],"f32")};
const time=(name:string,f:()=>void,n=5)=>{f();const ts:number[]=[];for(let i=0;i<n;i++){const a=performance.now();f();ts.push(performance.now()-a)}ts.sort((a,b)=>a-b);console.log(name,ts[n>>1]!.toFixed(1),ts[0]!.toFixed(1))};
console.log(threads());
for(const normalize of [true,false]){
const k=kernels.rbf({sigma:normalize?1:27,normalize});
time("gram rbf",()=>gramSync({x,y,kernel:k},{out}));
time("gram rbf sym",()=>gramSync({x,kernel:k},{out}));
time("vjp rbf",()=>gramVjpSync({x,y,kernel:k,upstream:u},{out:o2}));
time("vjp rbf sym",()=>gramVjpSync({x,kernel:k,upstream:u},{out:{x:o2.x}}));
}
const k=kernels.mixture({a:kernels.rbf(),b:kernels.polynomial(),c:kernels.mahalanobis({factor:tensor(new Float64Array(D).fill(1),[D])})});
time("gram mix",()=>gramSync({x,y,kernel:k},{out}));
time("vjp mix",()=>gramVjpSync({x,y,kernel:k,upstream:u},{out:o2}),3);
time("reduce",()=>gramReduceSync({x,y,kernel:kernels.rbf(),vectors:new Float32Array(N).fill(1)}));
time("mmd",()=>mmdSync({x,y,kernel:kernels.rbf()}));
time("mmd grads",()=>mmdSync({x,y,kernel:kernels.rbf(),gradients:true}));
