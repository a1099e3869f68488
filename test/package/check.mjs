/** What every way of loading the package must be able to do: throws where a number is wrong. */
export function check(dpo) {
  const { logProbs } = dpo.tokenLogProbsSync({ logits: dpo.tensor(new Float32Array(8), [2, 4]), targets: Int32Array.of(0, 3) });
  for (const value of logProbs.data) {
    if (Math.abs(value + Math.log(4)) > 1e-6) throw new Error(`expected -ln 4; got ${value}`);
  }
  const objective = new dpo.DpoKernels({ beta: 0.1 });
  const { loss } = objective.lossAndGradSync({
    policy: { logProbs: Float32Array.of(-1, -2) },
    reference: { logProbs: Float32Array.of(-1, -2) },
  });
  if (Math.abs(loss - Math.LN2) > 1e-6) throw new Error(`expected ln 2; got ${loss}`);
  if (!dpo.backends().some(({ name, selected }) => name === "cpu" && selected)) throw new Error("the CPU backend is not selected");
}
