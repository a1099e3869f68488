#!/usr/bin/env node
// What prebuildify runs as node-gyp: builds with cmake-js, and leaves in build/Release of the current folder what a package has, and no more.
import { copyFileSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Failure, root, run, script } from "./process.mjs";

const SHIPPED = /^(dpo_kernels\.node|dpo_cpu(_v\d)?\.so|dpo_cuda\.so)$/;

await script("node-gyp", () => {
  const [command] = process.argv.slice(2);
  if (command !== "rebuild") throw new Failure(`expected rebuild; got ${command}`);
  run(process.execPath, ["scripts/build.mjs", "--levels", "all"]);
  const from = join(root, "build/Release");
  const to = join(process.cwd(), "build/Release");
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(from).filter((name) => SHIPPED.test(name))) copyFileSync(join(from, name), join(to, name));
});
