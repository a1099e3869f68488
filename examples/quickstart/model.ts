import * as tf from "@tensorflow/tfjs-core";
import { ANSWER_LENGTH, type Batch, PROMPT_LENGTH } from "./batch.js";
import { normals, type Random } from "./random.js";

const WIDTH = 96;
/** One narrow attention head per layer: batched products are the slow part of the WebAssembly backend. */
const HEAD_WIDTH = 32;
const LAYERS = 2;
const CONTEXT = PROMPT_LENGTH + ANSWER_LENGTH + 8;
const MASKED = -1e9;

export const MODEL_TEXT = `${LAYERS} layers, width ${WIDTH}, one attention head of ${HEAD_WIDTH}, context ${CONTEXT - 8}`;

/** Weights by name, off the accelerator. */
export type Weights = ReadonlyMap<string, { readonly shape: readonly number[]; readonly values: Float32Array }>;

/**
 * Matrix product. The WebAssembly backend multiplies plain matrices ten times faster than transposed ones, which the
 * usual gradient would ask for; so this one transposes first.
 */
function dense(x: tf.Tensor2D, weight: tf.Tensor2D): tf.Tensor2D {
  const product = tf.customGrad<tf.Tensor2D>((input, matrix, save) => {
    const [a, b] = [input as tf.Tensor2D, matrix as tf.Tensor2D];
    (save as tf.GradSaveFunc)([a, b]);
    return {
      value: tf.matMul(a, b),
      gradFunc: (dy, saved) => {
        const [savedA, savedB] = saved as [tf.Tensor2D, tf.Tensor2D];
        return [tf.matMul(dy, tf.transpose(savedB)), tf.matMul(tf.transpose(savedA), dy)];
      },
    };
  });
  return product(x, weight);
}

/** Rows of a table. The usual gradient needs a kernel that the WebAssembly backend lacks; scatterND adds up as well. */
function lookUp(table: tf.Tensor2D, ids: tf.Tensor1D): tf.Tensor2D {
  const rows = tf.customGrad<tf.Tensor2D>((input, save) => {
    (save as tf.GradSaveFunc)([ids]);
    return {
      value: tf.gather(input as tf.Tensor2D, ids),
      gradFunc: (dy, saved) => tf.scatterND(tf.reshape(saved[0] as tf.Tensor, [-1, 1]), dy, table.shape),
    };
  });
  return rows(table);
}

/** Root-mean-square normalisation without a gain (the next matrix can hold it). */
function normalize(x: tf.Tensor2D): tf.Tensor2D {
  return tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), 1, true), 1e-5)));
}

function causalMask(length: number): tf.Tensor2D {
  const mask = new Float32Array(length * length);
  for (let row = 0; row < length; row++) mask.fill(MASKED, row * length + row + 1, (row + 1) * length);
  return tf.tensor2d(mask, [length, length]);
}

/** A small causal transformer; the head is the token table itself. */
export class Model {
  readonly #variables = new Map<string, tf.Variable>();

  private constructor(weights: Weights) {
    for (const [name, { shape, values }] of weights) {
      this.#variables.set(name, tf.variable(tf.tensor(values.slice(), [...shape])));
    }
  }

  static create(vocabulary: number, random: Random): Model {
    return new Model(initialWeights(vocabulary, random));
  }

  static from(weights: Weights): Model {
    return new Model(weights);
  }

  get variables(): tf.Variable[] {
    return [...this.#variables.values()];
  }

  get parameterCount(): number {
    return this.variables.reduce((sum, variable) => sum + variable.size, 0);
  }

  /** The token table, which is also the output head. */
  get head(): tf.Tensor2D {
    return this.#matrix("tokens");
  }

  /** Hidden states [rows * length, width], ready for the head. */
  hidden({ ids, rows, length }: Batch): tf.Tensor2D {
    const tokens = lookUp(this.head, tf.tensor1d(ids, "int32"));
    const positions = tf.slice(this.#matrix("positions"), [0, 0], [length, WIDTH]);
    const mask = causalMask(length);
    let x: tf.Tensor2D = tf.reshape(tf.add(tf.reshape(tokens, [rows, length, WIDTH]), positions), [-1, WIDTH]);
    for (let layer = 0; layer < LAYERS; layer++) {
      x = tf.add(x, this.#attend(normalize(x), `layer${layer}`, rows, mask));
      x = tf.add(x, this.#think(normalize(x), `layer${layer}`));
    }
    return normalize(x);
  }

  weights(): Weights {
    return new Map([...this.#variables].map(([name, variable]) => [name, { shape: variable.shape, values: Float32Array.from(variable.dataSync()) }]));
  }

  dispose(): void {
    tf.dispose(this.variables);
  }

  #matrix(name: string): tf.Tensor2D {
    const variable = this.#variables.get(name);
    if (variable === undefined) throw new Error(`the model has no weights named ${name}`);
    return variable as tf.Tensor2D;
  }

  #attend(x: tf.Tensor2D, name: string, rows: number, mask: tf.Tensor2D): tf.Tensor2D {
    const project = (part: string): tf.Tensor3D => tf.reshape(dense(x, this.#matrix(`${name}/${part}`)), [rows, -1, HEAD_WIDTH]);
    const scores = tf.matMul(tf.mul(project("query"), 1 / Math.sqrt(HEAD_WIDTH)), project("key"), false, true);
    const mixed = tf.matMul(tf.softmax(tf.add(scores, mask)), project("value"));
    return dense(tf.reshape(mixed, [-1, HEAD_WIDTH]), this.#matrix(`${name}/output`));
  }

  #think(x: tf.Tensor2D, name: string): tf.Tensor2D {
    return dense(tf.relu(dense(x, this.#matrix(`${name}/expand`))), this.#matrix(`${name}/contract`));
  }
}

function initialWeights(vocabulary: number, random: Random): Weights {
  const weights = new Map<string, { shape: number[]; values: Float32Array }>();
  const add = (name: string, rows: number, columns: number, deviation = 1 / Math.sqrt(rows)) =>
    weights.set(name, { shape: [rows, columns], values: normals(rows * columns, deviation, random) });
  add("tokens", vocabulary, WIDTH, 0.05);
  add("positions", CONTEXT, WIDTH, 0.02);
  for (let layer = 0; layer < LAYERS; layer++) {
    for (const part of ["query", "key", "value"]) add(`layer${layer}/${part}`, WIDTH, HEAD_WIDTH);
    add(`layer${layer}/output`, HEAD_WIDTH, WIDTH, 0.02);
    add(`layer${layer}/expand`, WIDTH, 4 * WIDTH);
    add(`layer${layer}/contract`, 4 * WIDTH, WIDTH, 0.02);
  }
  return weights;
}
