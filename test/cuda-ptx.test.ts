/** That kernels that stream rows read and write them 16 bytes at a time, as nvcc compiles them. */

import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { which } from "../scripts/lib/process.mjs";
import { wideAccesses } from "../scripts/lib/ptx.mjs";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const NVCC = which("nvcc");
if (NVCC === undefined) console.warn("nvcc is not here: that kernels read 16 bytes at a time is not tested");

async function ptxOf(source: string): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "dpo-ptx-"));
  try {
    const file = join(folder, "kernels.ptx");
    const flags = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", "-I.", "-Inative/cuda", "-ptx", "-arch=compute_90"];
    await promisify(execFile)(NVCC as string, [...flags, source, "-o", file], { cwd: ROOT });
    return readFileSync(file, "utf8");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

describe("PTX", () => {
  it("has its accesses of 16 bytes counted by kernel", () => {
    const ptx = `.visible .entry first(
.param .u64 a) { ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1]; ld.global.nc.v2.b64 {%rd2, %rd3}, [%rd1]; ld.global.v2.f32 {%f1, %f2}, [%rd1]; }
.entry second() { st.global.v4.b32 [%rd1], {%r1, %r2, %r3, %r4}; ld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1]; ld.global.f32 %f1, [%rd1]; }`;
    expect([...wideAccesses(ptx)]).toEqual([
      ["first", { loads: 2, stores: 0 }],
      ["second", { loads: 0, stores: 1 }],
    ]);
  });

  it.skipIf(NVCC === undefined)(
    "of token_log_probs reads and writes rows of every dtype 16 bytes at a time",
    async () => {
      const kernels = [...wideAccesses(await ptxOf("native/cuda/token_log_probs.cu"))];
      const named = (name: string) => kernels.filter(([symbol]) => symbol.includes(name));
      expect(named("sum_parts")).toHaveLength(8);
      expect(named("pull_back_parts")).toHaveLength(8);
      for (const [symbol, { loads }] of [...named("sum_parts"), ...named("pull_back_parts")]) expect(loads, symbol).toBeGreaterThan(0);
      for (const [symbol, { stores }] of named("pull_back_parts")) expect(stores, symbol).toBeGreaterThan(0);
    },
    300_000,
  );
});
