// Makes prebuilds/PLATFORM-ARCH: the addon and every backend that is shipped, for all instruction sets, and the CUDA backend where nvcc was found.
//   node scripts/prebuild.mjs
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import prebuildify from "prebuildify";
import { Failure, root, say, script } from "./lib/process.mjs";

const STAGE = join(root, "build/prebuild");
const FOLDER = join(root, "prebuilds");

await script("prebuild", async () => {
  for (const folder of [STAGE, FOLDER]) rmSync(folder, { recursive: true, force: true });
  mkdirSync(STAGE, { recursive: true });
  const options = {
    cwd: STAGE, // prebuildify takes the addon away from where it finds it
    out: root,
    name: "dpo-kernels",
    napi: true,
    tagLibc: true,
    strip: true,
    nodeGyp: join(root, "scripts/lib/node-gyp.mjs"),
    targets: [{ runtime: "node", target: process.versions.node }],
  };
  await new Promise((resolve, reject) => prebuildify(options, (error) => (error ? reject(new Failure(error.message)) : resolve())));
  for (const name of readdirSync(FOLDER, { recursive: true })) say(`prebuild: ${name}`);
});
