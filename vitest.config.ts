import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { alias: { "dpo-kernels": fileURLToPath(new URL("./lib/index.ts", import.meta.url)) } },
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 180_000,
    // Each test file in a process of its own: the addon's threads are those of the process.
    pool: "forks",
    // The default leaves one processor idle, of two that is half.
    maxWorkers: availableParallelism(),
  },
});
