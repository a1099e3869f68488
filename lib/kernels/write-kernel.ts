import type { Frame } from "../native/frame.js";
import { dataOf, Tensor } from "../tensor.js";
import { checkFitted, FORMULA_NAMES, type FormulaKernel, type Kernel, type MixtureKernel } from "./kernel.js";

/** A group or a kernel of the tree, with its place in it. */
interface Node<Of extends Kernel> {
  /** "local/rbf"; of the root "". */
  path: string;
  kernel: Of;
  parent: number;
}

/** A kernel as the native side sees it: groups, parents first, then the kernels themselves. */
export interface KernelTree {
  groups: Node<MixtureKernel>[];
  members: Node<FormulaKernel>[];
}

export function treeOf(kernel: Kernel): KernelTree {
  const tree: KernelTree = { groups: [], members: [] };
  const add = (node: Node<Kernel>): void => {
    if (node.kernel.name !== "mixture") {
      tree.members.push(node as Node<FormulaKernel>);
      return;
    }
    const parent = tree.groups.push(node as Node<MixtureKernel>) - 1;
    for (const [name, member] of Object.entries(node.kernel.members)) add({ path: joined(node.path, name), kernel: member, parent });
  };
  add({ path: "", kernel, parent: -1 });
  return tree;
}

function joined(path: string, name: string): string {
  return path === "" ? name : `${path}/${name}`;
}

function nodesOf({ groups, members }: KernelTree): Node<Kernel>[] {
  return [...groups, ...members];
}

/** Where each node's logit is: its group's tensor, and the place in it. */
function logitPlaces(tree: KernelTree): ({ logits: Tensor<"f64">; path: string; place: number } | undefined)[] {
  return nodesOf(tree).map(({ parent, path }) => {
    const group = tree.groups[parent];
    if (group === undefined) return undefined;
    const name = path.slice(group.path === "" ? 0 : group.path.length + 1);
    return { logits: group.kernel.logits, path: joined(group.path, "logits"), place: Object.keys(group.kernel.members).indexOf(name) };
  });
}

function writeFormula(frame: Frame, kernel: FormulaKernel | undefined, inMixture: boolean): void {
  frame.code(kernel ? FORMULA_NAMES.indexOf(kernel.name) : 0).code(kernel?.unitDiagonal ?? inMixture);
  frame.code(kernel?.floor ?? 0.5).code(kernel?.nu ?? 0);
  frame.optionalInput("kernel parameters", kernel && packedParameters(kernel));
}

/** The parameters of a formula in one array, in the order of native/math/log_kernels.h, which is that of the record. */
function packedParameters({ name, parameters }: FormulaKernel): Tensor<"f64"> | undefined {
  if (name === "mahalanobis") return undefined;
  let length = 0;
  for (const parameter in parameters) length += parameters[parameter]?.size ?? 0;
  if (length === 0) return undefined;
  const packed = new Float64Array(length);
  let begin = 0;
  for (const parameter in parameters) {
    const values = dataOf(parameter, parameters[parameter] as Tensor<"f64">);
    packed.set(values, begin);
    begin += values.length;
  }
  return new Tensor(packed, [length], "f64");
}

/** A fitted kernel, in the order of native/addon/kernel_arguments.h. */
export function writeKernel(frame: Frame, kernel: Kernel): void {
  checkFitted(kernel);
  const tree = treeOf(kernel);
  const inMixture = tree.groups.length > 0;
  frame.code(kernel.normalize).code(tree.members.length);
  for (const { kernel: member } of tree.members) {
    writeFormula(frame, member, inMixture);
    frame.optionalInput("kernel map", member.projection ?? member.parameters.factor);
    frame.optionalInput("landmarks", member.landmarks);
    writeFormula(frame, member.base, false);
  }
  frame.code(tree.groups.length);
  if (!inMixture) {
    frame.absent().absent();
    return;
  }
  const places = logitPlaces(tree);
  const logits = Float64Array.from(places, (at) => (at === undefined ? 0 : (dataOf("logits", at.logits)[at.place] ?? 0)));
  frame
    .input(
      "kernel parents",
      Int32Array.from(nodesOf(tree), ({ parent }) => parent),
    )
    .input("logits", logits);
}

/** Declares the results for the gradients of a kernel's parameters. What it returns reads them, by the names of kernel.parameters. */
export function kernelGradientResults(frame: Frame, kernel: Kernel): () => Record<string, Tensor<"f64">> {
  const tree = treeOf(kernel);
  const ofMembers = tree.members.map(({ path, kernel: member }) => {
    const packed = packedParameters(member);
    const { factor } = member.parameters;
    const parameters = packed && frame.result("out.parameters", "f64", packed.shape);
    if (parameters === undefined) frame.absent();
    const factorGradient = factor && frame.result("out.factor", "f64", factor.shape);
    if (factorGradient === undefined) frame.absent();
    return { path, member, parameters, factorGradient };
  });
  const places = logitPlaces(tree);
  const logits = tree.groups.length > 0 ? frame.result("out.logits", "f64", [places.length]) : undefined;
  if (logits === undefined) frame.absent();
  return () => {
    const grads: Record<string, Tensor<"f64">> = {};
    for (const { path, kernel: group } of tree.groups) {
      grads[joined(path, "logits")] = new Tensor(new Float64Array(group.logits.size), group.logits.shape, "f64");
    }
    places.forEach((at, node) => {
      const target = at && grads[at.path];
      if (target) target.data[at.place] = logits?.data[node] ?? 0;
    });
    for (const { path, member, parameters, factorGradient } of ofMembers) {
      if (parameters) unpack(member, parameters.data, (name, value) => Object.assign(grads, { [joined(path, name)]: value }));
      if (factorGradient) grads[joined(path, "factor")] = factorGradient;
    }
    return Object.fromEntries(Object.keys(kernel.parameters).map((name) => [name, grads[name] as Tensor<"f64">]));
  };
}

/** The inverse of packedParameters. */
function unpack({ parameters }: FormulaKernel, packed: Float64Array, put: (name: string, value: Tensor<"f64">) => void): void {
  let begin = 0;
  for (const [name, { size, shape }] of Object.entries(parameters)) {
    put(name, new Tensor(packed.slice(begin, begin + size), shape, "f64"));
    begin += size;
  }
}
