import { createRequire } from "node:module";
import { dirname, sep } from "node:path";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
// In Node, the gradients of the basic operations are registered by this package, not by tfjs-core.
import "@tensorflow/tfjs-layers";

/** Starts TensorFlow.js on WebAssembly, or on plain JavaScript where that fails; returns the name. */
export async function startBackend(): Promise<string> {
  const entry = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
  setWasmPaths(dirname(entry) + sep);
  tf.enableProdMode();
  if (!(await tf.setBackend("wasm"))) await tf.setBackend("cpu");
  await tf.ready();
  return tf.getBackend();
}
