import { gramSync, gramVjpSync, gramReduceSync, mmdSync, kernels, tensor, zeros, threads } from "./lib/index.js";
const N=4096,D=768;const rn=(n:number)=>Float32Array.from({length:n},()=>Math.sqrt(-2*Math.log(1-Math.random()))*Math.cos(6.2831853*Math.random()));
const x=tensor(rn(N*D),[N,D]),y=tensor(rn(N*D),[N,D]),u=tensor(rn(N*N),[N,N]);
const out={gram:zeros([N,N],"f32")},o2={x:zeros([N,D],"f32"),y:zeros([N,D],"f32")};
const k=kernels.rbf({sigma:1});
for(let i=0;i<8;i++){gramVjpSync({x,y,kernel:k,upstream:u},{out:o2})}
