/** What every operation refuses: by the right error, that names the argument, and without touching anything it was given. */

import {
  AbortedError,
  BackendError,
  DataError,
  DisposedError,
  DpoKernels,
  DpoKernelsError,
  DTypeError,
  type ErrorCode,
  kernels,
  MemoryError,
  NonFiniteError,
  NotPsdError,
  type ObjectiveOptions,
  OutOfRangeError,
  ShapeError,
  Tensor,
} from "dpo-kernels";
import { describe, expect, it } from "vitest";
import { describeBackends, hasOperations } from "./support/backends.js";
import {
  type Args,
  BAD_PREFERENCE_OPTIONS,
  type InputRules,
  nested,
  OPERATIONS,
  type OperationCase,
  REFUSED_TOGETHER,
  setAt,
  TOKENS,
  valueAt,
  WORDS,
} from "./support/operation-table.js";
import type { Storage } from "./support/storage.js";
import { bytesBehind, detach, filled, overlapping, reshaped, writeElement } from "./support/tensors.js";

const CLASSES: Readonly<Record<ErrorCode, new (message: string) => DpoKernelsError>> = {
  ERR_SHAPE: ShapeError,
  ERR_DTYPE: DTypeError,
  ERR_RANGE: OutOfRangeError,
  ERR_NONFINITE: NonFiniteError,
  ERR_BACKEND: BackendError,
  ERR_DISPOSED: DisposedError,
  ERR_ABORTED: AbortedError,
  ERR_MEMORY: MemoryError,
  ERR_DATA: DataError,
  ERR_NOT_PSD: NotPsdError,
};

/** One wrong call. */
interface BadCall {
  readonly title: string;
  readonly dtype?: Storage;
  /** Makes valid arguments wrong; may also change the results supplied, which are by path. */
  change(args: Args, outs: Record<string, unknown>): void;
  readonly codes: readonly ErrorCode[];
  /** One of these must be in the message. Empty: any message will do. */
  readonly names: readonly string[];
  readonly index?: number | undefined;
}

const NO_TENSORS: readonly unknown[] = [5, "logits", {}, [1, 2, 3], new Uint8Array(8), new DataView(new ArrayBuffer(8)), new BigInt64Array(2)];

function lastKey(path: string): string {
  return path.split(".").at(-1) ?? path;
}

function namesOf(path: string, { alias }: InputRules): string[] {
  return alias === undefined ? [lastKey(path)] : [lastKey(path), alias];
}

function* badInputs(operation: OperationCase): Generator<BadCall> {
  for (const [path, rules] of Object.entries(operation.inputs)) {
    const names = namesOf(path, rules);
    for (const given of rules.optional ? NO_TENSORS : [undefined, null, ...NO_TENSORS]) {
      yield {
        title: `${path}: no tensor but ${show(given)}`,
        change: (args) => setAt(args, path, given),
        codes: given === undefined || given === null ? ["ERR_SHAPE", "ERR_DTYPE"] : ["ERR_DTYPE"],
        names,
      };
    }
    yield { title: `${path}: empty`, change: (args) => setAt(args, path, new Float32Array(0)), codes: ["ERR_SHAPE"], names };
    for (const { shape, names: others = [] } of rules.badShapes) {
      yield {
        title: `${path}: shape [${shape.join(", ")}]`,
        change: (args) => setAt(args, path, reshaped(valueAt(args, path) as Tensor, shape)),
        codes: ["ERR_SHAPE"],
        names: [...names, ...others],
      };
    }
    for (const dtype of rules.badDTypes) {
      yield {
        title: `${path}: ${dtype}`,
        change: (args) => {
          const tensor = valueAt(args, path) as Tensor;
          setAt(args, path, reshaped(tensor, tensor.shape, dtype));
        },
        codes: ["ERR_DTYPE"],
        names,
      };
    }
    yield {
      title: `${path}: disposed of`,
      change: (args) => (valueAt(args, path) as Tensor).dispose(),
      codes: ["ERR_DISPOSED"],
      names,
    };
    yield { title: `${path}: detached`, change: (args) => detach(valueAt(args, path) as Tensor), codes: ["ERR_DISPOSED"], names };
    yield* badContents(operation, path, rules);
  }
}

function* badContents(operation: OperationCase, path: string, rules: InputRules): Generator<BadCall> {
  const names = namesOf(path, rules);
  const element = (index: number, value: number, codes: readonly ErrorCode[], dtype: Storage = "f32"): BadCall => ({
    title: `${path}: ${dtype === "f32" ? "" : `${dtype} `}element ${index} is ${value}`,
    dtype,
    change: (args) => writeElement(valueAt(args, path) as Tensor, index, value),
    codes,
    names,
    index,
  });
  if (rules.holds === "targets") {
    for (const value of [-1, -101, -99, WORDS, 2 ** 31 - 1, -(2 ** 31)]) yield element(1, value, ["ERR_RANGE"]);
    yield element(0, -1, ["ERR_RANGE"]);
    yield element(TOKENS - 1, WORDS, ["ERR_RANGE"]);
  } else if (rules.holds === "offsets") {
    yield element(0, 1, ["ERR_RANGE"]);
    yield element(0, -1, ["ERR_RANGE"]);
    yield element(2, 1, ["ERR_RANGE"]);
    yield element(1, -2, ["ERR_RANGE"]);
    yield { ...element(4, TOKENS - 1, ["ERR_RANGE"]), index: 4 };
    yield { ...element(4, TOKENS + 1, ["ERR_RANGE"]), index: 4 };
  } else if (rules.holds !== "mask") {
    const bad = rules.holds === "logits" ? [Number.NaN, Infinity] : [Number.NaN, Infinity, -Infinity];
    const ofInput = valueAt(operation.args("f32"), path) as Tensor;
    const last = ofInput.size - 1;
    for (const value of bad) {
      for (const index of new Set([0, Math.floor(last / 2), last])) yield element(index, value, ["ERR_NONFINITE"]);
      if (last === 0) continue;
      yield {
        title: `${path}: elements 1 and ${last} are ${value}`,
        change: (args) => {
          for (const index of [1, last]) writeElement(valueAt(args, path) as Tensor, index, value);
        },
        codes: ["ERR_NONFINITE"],
        names,
        index: 1,
      };
    }
    for (const dtype of operation.dtypes) {
      if (dtype !== "f32") yield element(1, Number.NaN, ["ERR_NONFINITE"], dtype);
    }
  }
}

function* badOuts(operation: OperationCase): Generator<BadCall> {
  const outs = operation.outs("f32");
  for (const [path, { shape, dtype }] of Object.entries(outs)) {
    const names = [lastKey(path)];
    for (const given of [5, "out", {}, new Float32Array(filled(shape, "f32").size)]) {
      yield {
        title: `out.${path}: no tensor but ${show(given)}`,
        change: (_, all) => void Object.assign(all, { [path]: given }),
        codes: ["ERR_DTYPE"],
        names,
      };
    }
    const [first = 1, ...rest] = shape;
    const shapes = [[first + 1, ...rest], [first, ...rest, 1], rest.length > 0 ? [...rest, first] : [1, first]];
    for (const bad of shapes) {
      if (bad.join() === shape.join()) continue; // of a square matrix
      yield {
        title: `out.${path}: shape [${bad.join(", ")}]`,
        change: (_, all) => void Object.assign(all, { [path]: filled(bad, dtype) }),
        codes: ["ERR_SHAPE"],
        names,
      };
    }
    for (const bad of ["f32", "f64", "f16", "bf16", "i32"] as const) {
      if (bad === dtype) continue;
      yield {
        title: `out.${path}: ${bad}`,
        change: (_, all) => void Object.assign(all, { [path]: filled(shape, bad) }),
        codes: ["ERR_DTYPE"],
        names,
      };
    }
    yield { title: `out.${path}: disposed of`, change: (_, all) => (all[path] as Tensor).dispose(), codes: ["ERR_DISPOSED"], names };
    yield { title: `out.${path}: detached`, change: (_, all) => detach(all[path] as Tensor), codes: ["ERR_DISPOSED"], names };
    yield* overlaps(operation, path);
  }
}

function* overlaps(operation: OperationCase, path: string): Generator<BadCall> {
  for (const where of ["start", "end"] as const) {
    for (const input of Object.keys(operation.inputs)) {
      yield {
        title: `out.${path} in the ${where} of ${input}`,
        change: (args, all) => {
          const [under, over] = overlapping(valueAt(args, input) as Tensor, all[path] as Tensor, where);
          setAt(args, input, under);
          all[path] = over;
        },
        codes: ["ERR_MEMORY"],
        names: [],
      };
    }
    for (const other of Object.keys(operation.outs("f32"))) {
      if (other === path) continue;
      yield {
        title: `out.${path} in the ${where} of out.${other}`,
        change: (_, all) => {
          [all[other], all[path]] = overlapping(all[other] as Tensor, all[path] as Tensor, where);
        },
        codes: ["ERR_MEMORY"],
        names: [],
      };
    }
  }
}

function show(value: unknown): string {
  if (ArrayBuffer.isView(value)) return `a ${value.constructor.name}`;
  return typeof value === "number" || value === undefined ? String(value) : JSON.stringify(value);
}

function* badOptions(operation: OperationCase): Generator<BadCall> {
  for (const [option, values] of Object.entries(operation.badOptions)) {
    for (const value of values) {
      yield {
        title: `${option}: ${show(value)}`,
        change: (args) => setAt(args, option, value),
        // What is no number at all may also be called a value of the wrong kind.
        codes: typeof value === "number" ? ["ERR_RANGE"] : ["ERR_RANGE", "ERR_DTYPE"],
        names: [option, ...(option === "lossWeights" ? ["loss weight"] : [])],
      };
    }
  }
}

/** The memory behind all tensors and typed arrays within a value, to be compared later. */
function snapshot(value: unknown): { data: ArrayBufferView; bytes: Uint8Array }[] {
  if (value instanceof Tensor) {
    if (value.disposed) return [];
    try {
      return [{ data: value.data, bytes: bytesBehind(value.data) }];
    } catch {
      return []; // detached
    }
  }
  if (ArrayBuffer.isView(value)) return [{ data: value, bytes: bytesBehind(value) }];
  if (typeof value !== "object" || value === null) return [];
  return Object.values(value).flatMap(snapshot);
}

async function failureOf(call: () => unknown): Promise<unknown> {
  try {
    await call();
    return undefined;
  } catch (error) {
    return error;
  }
}

async function expectRefused(operation: OperationCase, bad: BadCall, mode: "sync" | "async"): Promise<void> {
  const args = operation.args(bad.dtype ?? "f32");
  const outs: Record<string, unknown> = operation.outs(bad.dtype ?? "f32");
  bad.change(args, outs);
  const out = nested(outs);
  const before = snapshot([args, out]);
  const state = JSON.stringify(operation.state?.());

  let rejected = mode === "sync";
  const error = await failureOf(() => {
    const result = operation[mode](args, out);
    rejected = true; // it did not throw: an asynchronous call may only reject
    return result;
  });

  expect(error, `${mode}: nothing was thrown`).toBeDefined();
  expect(error, `${mode}: ${String(error)}`).toBeInstanceOf(DpoKernelsError);
  const { code, message, index, name } = error as DpoKernelsError;
  expect(bad.codes, `${mode}: ${name}: ${message}`).toContain(code);
  expect(error).toBeInstanceOf(CLASSES[code]);
  if (bad.names.length > 0) expect(message, mode).toMatch(new RegExp(`(?<!\\w)(${bad.names.join("|")})(?!\\w)`));
  if (bad.index !== undefined) expect(index, `${mode}: ${message}`).toBe(bad.index);
  expect(rejected, "threw instead of rejecting").toBe(true);
  for (const { data, bytes } of before) expect(Buffer.compare(bytesBehind(data), bytes), `${mode}: memory changed`).toBe(0);
  expect(JSON.stringify(operation.state?.())).toBe(state);
}

function cases(operation: OperationCase): [string, readonly BadCall[]][] {
  return [
    ["inputs", [...badInputs(operation)]],
    ["results supplied", [...badOuts(operation)]],
    ["options", [...badOptions(operation)]],
    ["arguments that do not go together", operation.special],
  ];
}

describeBackends((backend) => {
  describe.each(OPERATIONS.filter(({ needs }) => hasOperations(backend, needs)))("$name", (operation) => {
    for (const dtype of operation.dtypes) {
      it(`takes the valid arguments that the bad ones are made of, in ${dtype}`, async () => {
        for (const mode of ["sync", "async"] as const) {
          const outs = operation.outs(dtype);
          const before = new Map(Object.entries(outs).map(([path, out]) => [path, [...out.data]]));
          await operation[mode](operation.args(dtype), nested(outs));
          for (const [path, out] of Object.entries(outs)) expect([...out.data], `${mode}: ${path} was not written`).not.toEqual(before.get(path));
        }
      });
    }
    for (const [group, calls] of cases(operation)) {
      if (calls.length === 0) continue;
      describe(`refuses ${group}`, () => {
        it.each(calls.map((call) => [call.title, call] as const))("%s", async (_, call) => {
          await expectRefused(operation, call, "sync");
          await expectRefused(operation, call, "async");
        });
      });
    }
  });
}, []);

describe("new DpoKernels refuses", () => {
  const { bcoDelta: _, ...options } = BAD_PREFERENCE_OPTIONS;
  const all = { ...options, temperature: [Number.NaN, 0, -1, "hot"], softcap: [Number.NaN, -1, "soft"], ldAlpha: [Number.NaN, -1, "x"] };
  const limits = { memoryLimit: [Number.NaN, -1, 0, 1.5, "much"], bcoDelta: [Number.NaN, Infinity, "x"] };
  const bad = Object.entries({ ...all, ...limits }).flatMap(([option, values]) => values.map((value) => [option, value] as const));

  it.each(bad.map(([option, value]) => [`${option}: ${show(value)}`, option, value] as const))("%s", (__, option, value) => {
    const made = () => new DpoKernels({ kernel: kernels.rbf(), [option]: value } as ObjectiveOptions);
    expect(made).toThrow(DpoKernelsError);
    expect(made).toThrow(new RegExp(option === "lossWeights" ? "loss ?[wW]eight" : option));
    const codes = typeof value === "number" ? ["ERR_RANGE"] : ["ERR_RANGE", "ERR_DTYPE"];
    expect(codes).toContain(codeOf(made));
  });

  it.each(REFUSED_TOGETHER.map(({ title, ...rest }) => [title, rest] as const))("%s", (__, { options: together, names }) => {
    const made = () => new DpoKernels(together as ObjectiveOptions);
    expect(codeOf(made)).toBe("ERR_RANGE");
    expect(made).toThrow(new RegExp(names.join("|")));
  });

  it("gamma without a kernel", () => {
    expect(codeOf(() => new DpoKernels({ gamma: 0.25 }))).toBe("ERR_RANGE");
    expect(() => new DpoKernels({ gamma: 0.25 })).toThrow(/gamma.*kernel/);
    expect(() => new DpoKernels({ gamma: 0 })).not.toThrow();
  });

  it.each([
    ["a name", "rbf"],
    ["nothing of a kernel", {}],
    ["an unknown name", { ...kernels.rbf(), name: "cosine" }],
    ["no parameters", { ...kernels.rbf(), parameters: {} }],
  ])("a kernel that is %s", (__, kernel) => {
    const made = () => new DpoKernels({ kernel } as unknown as ObjectiveOptions);
    expect(made).toThrow(DpoKernelsError);
    expect(made).toThrow(/kernel/);
  });

  it("as many weights as there are no losses for", () => {
    expect(codeOf(() => new DpoKernels({ loss: ["sigmoid", "ipo"], lossWeights: [1] }))).toBe("ERR_SHAPE");
  });
});

describe("kernels.rbf refuses", () => {
  const bad = [Number.NaN, Infinity, 0, -1, "1", "wide", {}];
  it.each(bad.flatMap((value) => [["sigma", value] as const, ["gamma", value] as const]))("%s: %s", (option, value) => {
    const made = () => kernels.rbf({ [option]: value } as never);
    expect(["ERR_RANGE", "ERR_DTYPE"]).toContain(codeOf(made));
    expect(made).toThrow(new RegExp(option));
  });

  it("sigma together with gamma", () => {
    expect(codeOf(() => kernels.rbf({ sigma: 1, gamma: 1 }))).toBe("ERR_RANGE");
  });
});

function codeOf(call: () => unknown): ErrorCode | undefined {
  try {
    call();
  } catch (error) {
    if (error instanceof DpoKernelsError) return error.code;
    throw error;
  }
  return undefined;
}
