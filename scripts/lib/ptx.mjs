/** The 16 bytes of a load or a store of global memory, in PTX: four words or two double words. */
const WIDE = /\b(ld|st)\.global(?:\.\w+)*\.(?:v4\.[bfsu]32|v2\.[bfsu]64)\b/g;

/** How many accesses of 16 bytes each kernel has, by its symbol. */
export function wideAccesses(ptx) {
  const kernels = new Map();
  // What follows a kernel up to the next may be a function, which has none.
  for (const [, symbol, body] of ptx.matchAll(/\.entry\s+(\w+)\s*\(([\s\S]*?)(?=\.entry\s|$(?![\s\S]))/g)) {
    const found = [...body.matchAll(WIDE)];
    const count = (kind) => found.filter(([, access]) => access === kind).length;
    kernels.set(symbol, { loads: count("ld"), stores: count("st") });
  }
  return kernels;
}
