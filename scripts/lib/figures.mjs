import { Failure } from "./process.mjs";

/** The lines of README's table: `what` is that of the results' rows, more than one where they share a line; `against` stands for the ceiling's name. */
const LINES = [
  { label: "`tokenLogProbs`, value + pull-back", operation: "tokenLogProbs", what: ["[512, 32000] f32, value + pull-back"] },
  { label: "the same with bf16 logits", operation: "tokenLogProbs", what: ["[512, 32000] bf16, value + pull-back"], against: "that of f32" },
  { label: "`divergence`, kl, value + gradient", operation: "divergence", what: ["[512, 32000] f32, kl, value + gradient"] },
  ...["renyi(2)", "tv", "js", "chi2"].map((kind) => ({
    label: `&nbsp;&nbsp;${kind}`,
    operation: "divergence",
    what: [`[512, 32000] f32, ${kind}, value + gradient`],
    against: "",
  })),
  {
    label: "&nbsp;&nbsp;kl and js with bf16 logits",
    operation: "divergence",
    what: ["kl", "js"].map((kind) => `[512, 32000] bf16, ${kind}, value + gradient`),
    against: "that of f32",
  },
  {
    label: "`linearTokenLogProbs`, value + pull-back",
    operation: "linearTokenLogProbs",
    what: ["N=512 D=512 V=32000 f32, value + pull-back"],
    against: "its four matrix products",
  },
  {
    label: "`linearDivergence`, js, value + gradients",
    operation: "linearDivergence",
    what: ["N=512 D=512 V=32000 f32, js, value + gradients"],
    against: "its four matrix products",
  },
  {
    label: "`DpoKernels` from hidden × head, 2 pairs, hybrid: loss and gradients",
    operation: "DpoKernels",
    what: ["hybrid with rbf, 2 pairs, N=512 D=512 V=32000 f32, loss and gradients"],
    against: "its three matrix products",
  },
  {
    label: "the same with `kernels.hmk()`, 32 pairs of 128 tokens, D = 768",
    operation: "DpoKernels",
    what: ["hybrid with hmk, 32 pairs of 128 tokens, V=32000 D=768 f32 from hidden × head, loss and gradients"],
    against: "the step with plain DPO",
  },
  {
    label: "`gram` + `gramVjp`, rbf, N = M = 4096, D = 768",
    operation: "gram, gramVjp",
    what: ["rbf, [4096, 768] f32, two samples"],
    against: "its three matrix products",
  },
  {
    label: "`pairKernel`, hmk, 4096 pairs, D = 768: values and gradients",
    operation: "pairKernel",
    what: ["hmk, 2 × [4096, 768] f32, values and gradients"],
    calls: 2,
    against: "those of rbf alone",
  },
  // Its ceiling is a bound that was set, not measured.
  { label: "`preferenceLoss`, 256 pairs, Sync", operation: "preferenceLoss", what: ["256 pairs, sigmoid"], ceiling: false },
];

/** What the peers of the results are called in the table, by how their names begin. */
const PEERS = { "PyTorch eager": "", "torch.compile": "compiled ", "plain TypeScript": "plain loop ", "TensorFlow.js": "TensorFlow.js " };

const OF_HEADS = ["linearTokenLogProbs, value", "linearTokenLogProbs, value + pull-back", "linearDivergence, js, value + gradients"];
const OF_DIVERGENCE = ["divergence, js, value + gradient, 128 rows", "divergence, js, value + gradient, 512 rows"];

const threeDigits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

function milliseconds(value) {
  if (value < 1) return value.toPrecision(2);
  return value < 100 ? value.toFixed(1) : threeDigits.format(value);
}

function peerTime(value) {
  return `${value < 10 ? milliseconds(value) : threeDigits.format(Math.round(value))} ms`;
}

function peersCell(peers) {
  const shown = Object.entries(PEERS).flatMap(([start, title]) =>
    Object.entries(peers)
      .filter(([name]) => name.startsWith(start))
      .map(([name, timing]) => ({ text: `${title}${peerTime(timing.median)}`, holds: name.includes("holds all logits") })),
  );
  return shown.map(({ text }) => text).join("; ") + (shown.some(({ holds }) => holds) ? ", holding all logits" : "");
}

function find(results, operation, what) {
  return results.rows.find((one) => one.operation === operation && one.what === what);
}

function rowOf(results, operation, what) {
  const row = find(results, operation, what);
  if (!row) throw new Failure(`the results have no row "${operation}: ${what}"`);
  return row;
}

function lineOf(results, { label, operation, what, calls = 1, ceiling = true, against }) {
  const rows = what.map((one) => rowOf(results, operation, one));
  const ratios = rows.map((row) => `${(row.timing.median / row.ceiling.ms).toFixed(2)} ×`).join(", ");
  const cells = [
    label,
    rows.map(({ timing }) => milliseconds(timing.median / calls)).join(", "),
    ceiling ? `${ratios} ${against ?? rows[0].ceiling.name}`.trim() : "",
    rows.map(({ peers }) => peersCell(peers)).find((cell) => cell !== "") ?? "",
  ];
  return `|${cells.map((cell) => (cell === "" ? " " : ` ${cell} `)).join("|")}|`;
}

function heading({ machine, rows }) {
  const others = rows.some(({ peers }) => Object.keys(peers).some((name) => !/^(PyTorch|torch)/.test(name)));
  const version = /^\d+\.\d+/.exec(machine.PyTorch)?.[0];
  return [...(version ? [`PyTorch ${version} eager`] : []), ...(others ? ["others"] : [])].join("; ") || "others";
}

function table(results) {
  const head = ["| | ms | against its ceiling, measured in the same run | ", heading(results), " |\n|---|---|---|---|"].join("");
  return `\n\n${[head, ...LINES.map((line) => lineOf(results, line))].join("\n")}\n\n`;
}

function mebibytes({ peakMemory = {} }, names) {
  const bytes = names.map((name) => peakMemory[name] ?? Number.NaN);
  const most = Math.max(...bytes);
  if (Number.isNaN(most)) throw new Failure(`the results have no peak memory of one of: ${names.join("; ")}`);
  return `${Math.round(most / 2 ** 20)} MiB`;
}

/** What stands between <!-- bench:NAME --> and <!-- /bench -->, by NAME. */
const FIGURES = {
  table,
  "memory-of-heads": (results) => mebibytes(results, OF_HEADS),
  "memory-of-divergence": (results) => mebibytes(results, OF_DIVERGENCE),
};

const MARKED = /<!-- bench:(\S+) -->.*?<!-- \/bench -->/gs;

/** `page` with every marked figure as the results have it. */
export function withFigures(page, results) {
  const begun = page.split("<!-- bench:").length - 1;
  const marked = page.match(MARKED)?.length ?? 0;
  if (marked === 0 || begun !== marked)
    throw new Failure(`${begun} figures begin with <!-- bench:NAME -->, ${marked} of them end with <!-- /bench -->`);
  return page.replace(MARKED, (_, name) => {
    if (!Object.hasOwn(FIGURES, name)) throw new Failure(`no figure is called ${name}: there are ${Object.keys(FIGURES).join(", ")}`);
    return `<!-- bench:${name} -->${FIGURES[name](results)}<!-- /bench -->`;
  });
}

/** The newest of the results of the CPU backend that have every row of the table, which a run of some operations or of other sizes has not. */
export function newestOfCpu(all) {
  const complete = (results) => LINES.every(({ operation, what }) => what.every((one) => find(results, operation, one)));
  const ofCpu = all.filter((results) => String(results.machine.backend).startsWith("cpu") && complete(results));
  if (ofCpu.length === 0) throw new Failure("bench/results has no results of the CPU backend with every row of the table");
  return ofCpu.reduce((newest, one) => (one.date >= newest.date ? one : newest));
}
