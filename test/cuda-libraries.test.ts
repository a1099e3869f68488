/** That the functions which native/cuda looks for by name are functions of CUDA's libraries, and that the stand-ins have them too. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { functionsOf, HEADERS, LIBRARIES } from "../scripts/lib/cuda-libraries.mjs";

const STAND_INS = fileURLToPath(new URL("../native/simt/include", import.meta.url));

/** Names that are declared as functions in a folder's headers. */
function declaredIn(folder: string): Set<string> {
  const text = readdirSync(folder)
    .filter((name) => name.endsWith(".h"))
    .map((name) => readFileSync(join(folder, name), "utf8"));
  return new Set([...text.join("\n").matchAll(/\b(cu\w+)\s*\(/g)].map(([, name]) => name ?? ""));
}

describe.each(LIBRARIES)("$file", (library) => {
  const names = functionsOf(library);

  it("is called", () => expect(names.length).toBeGreaterThan(2));

  it("has stand-ins of all functions that are looked for", () => {
    const declared = declaredIn(STAND_INS);
    expect(names.filter((name) => !declared.has(name))).toEqual([]);
  });

  it(`declares all functions that are looked for, in ${library.header} and what it includes`, ({ skip }) => {
    if (!existsSync(join(HEADERS, library.header)))
      skip(`${library.header} has not been fetched: npm run setup does so where nvcc is and its toolkit lacks it`);
    const declared = declaredIn(HEADERS);
    expect(names.filter((name) => !declared.has(name))).toEqual([]);
  });
});
