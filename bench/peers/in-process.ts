/** Peers that run in this process: plain loops, and TensorFlow.js where WebAssembly starts. */

import * as tf from "@tensorflow/tfjs-core";
import type { Tensor } from "dpo-kernels";
import { startBackend } from "../../examples/quickstart/backend.js";
import { local, type Variant } from "../measure.js";
import * as plain from "./plain.js";
import * as tfjs from "./tfjs.js";

const PLAIN = "plain TypeScript";
const TFJS = "TensorFlow.js wasm";

const FORMULAS = {
  js: { loops: plain.js, graph: tfjs.js },
  "renyi(2)": { loops: plain.renyi2, graph: tfjs.renyi2 },
};

interface Rows {
  policy: Tensor<"f32">;
  reference: Tensor<"f32">;
}

function matrix({ data, shape }: Tensor<"f32">): tf.Tensor2D {
  return tf.tensor2d(data, shape as [number, number]);
}

export class InProcess {
  /** "4.22.0", or undefined where it does not start on WebAssembly: on plain JavaScript it takes minutes. */
  readonly tfjs: string | undefined;

  private constructor(tfjsVersion: string | undefined) {
    this.tfjs = tfjsVersion;
    tf.engine().startScope();
  }

  static async open(): Promise<InProcess> {
    const started = (await startBackend()) === "wasm";
    if (!started) console.error("without TensorFlow.js: its WebAssembly backend does not start");
    return new InProcess(started ? tf.version_core : undefined);
  }

  tokenLogProbs({ logits, targets }: { logits: Tensor<"f32">; targets: Int32Array }): Record<string, Variant> {
    const [values, gradient] = [new Float32Array(targets.length), new Float32Array(logits.size)];
    return {
      [PLAIN]: local(() => plain.tokenLogProbs(logits.data, targets, values, gradient)),
      ...this.#ofTfjs(() => tfjs.tokenLogProbs(matrix(logits), tf.tensor1d(targets, "int32"))),
    };
  }

  divergence(kind: keyof typeof FORMULAS, { policy, reference }: Rows): Record<string, Variant> {
    const [values, gradient] = [new Float32Array(policy.shape[0] as number), new Float32Array(policy.size)];
    const { loops, graph } = FORMULAS[kind];
    return {
      [PLAIN]: local(() => plain.divergence(loops, policy.data, reference.data, values, gradient)),
      ...this.#ofTfjs(() => tfjs.divergence(graph, matrix(policy), matrix(reference))),
    };
  }

  /** Lets go of the inputs that TensorFlow.js holds; the variants made so far are of no use then. */
  release(): void {
    tf.engine().endScope();
    tf.engine().startScope();
  }

  #ofTfjs(prepare: () => () => tf.TensorContainer): Record<string, Variant> {
    if (this.tfjs === undefined) return {};
    const step = prepare();
    return { [TFJS]: local(() => tf.dispose(step())) };
  }
}
