import { Failure, output, which } from "./process.mjs";

const MINIMUM = { gcc: "11", clang: "18", cmake: "3.22" };
const COMPILER = `a C++20 compiler (GCC ${MINIMUM.gcc} or Clang ${MINIMUM.clang}, or newer)`;

/** Whether a version such as "3.25.1" is at least `wanted`. */
export function atLeast(version, wanted) {
  const have = version.split(".").map(Number);
  const want = wanted.split(".").map(Number);
  const different = want.findIndex((number, i) => number !== (have[i] ?? 0));
  return different < 0 || want[different] < (have[different] ?? 0);
}

/** The preprocessor says in one go what the compiler is and which headers it finds. */
const COMPILER_PROBE = `
#if defined(__clang__)
clang __clang_major__.__clang_minor__
#elif defined(__GNUC__)
gcc __GNUC__.__GNUC_MINOR__
#endif
#if __has_include(<span>)
standard_library
#endif
#if __has_include(<gtest/gtest.h>)
gtest
#endif
#if __has_include(<eigen3/Eigen/Dense>) || __has_include(<Eigen/Dense>)
eigen
#endif
`;

function newestFirst(name, newest, oldest) {
  return Array.from({ length: newest - oldest + 1 }, (_, i) => `${name}-${newest - i}`);
}

const COMPILERS = ["c++", "g++", "clang++", ...newestFirst("g++", 18, Number(MINIMUM.gcc)), ...newestFirst("clang++", 24, Number(MINIMUM.clang))];

function probeCompiler(name) {
  const path = which(name);
  const printed = path && output(path, ["-E", "-P", "-x", "c++", "-std=c++20", "-"], COMPILER_PROBE);
  const family = /(gcc|clang) (\d+)\s*\.\s*(\d+)/.exec(printed ?? "");
  if (!family) return undefined;
  const version = `${family[2]}.${family[3]}`;
  if (!atLeast(version, MINIMUM[family[1]]) || !printed.includes("standard_library")) return undefined;
  return { path, version: `${family[1]} ${version}`, gtest: printed.includes("gtest"), eigen: printed.includes("eigen") };
}

function findCompiler() {
  const { CXX } = process.env;
  for (const name of CXX ? [CXX] : COMPILERS) {
    const compiler = probeCompiler(name);
    if (compiler) return compiler;
  }
  if (CXX) throw new Failure(`CXX=${CXX} is not ${COMPILER}`);
  return undefined;
}

function findCMake() {
  const path = which("cmake");
  const version = path && /version (\d+(?:\.\d+)*)/.exec(output(path, ["--version"]) ?? "")?.[1];
  return version && atLeast(version, MINIMUM.cmake) ? { path, version } : undefined;
}

function findGenerator() {
  if (which("ninja")) return "Ninja";
  return which("make") ? "Unix Makefiles" : undefined;
}

/** The tools of the native build; each is undefined where it is missing or too old. */
export function findTools() {
  return { compiler: findCompiler(), cmake: findCMake(), generator: findGenerator() };
}

/** What is missing of `tools`: the need in words, and the package that has it for each package manager. */
export function missingTools({ compiler, cmake, generator }, { tests }) {
  const needs = [
    { met: compiler, what: COMPILER, apt: ["g++"], dnf: ["gcc-c++", "libstdc++-static"] },
    { met: cmake, what: `CMake ${MINIMUM.cmake} or newer`, apt: ["cmake"], dnf: ["cmake"] },
    { met: generator, what: "ninja or make", apt: ["ninja-build"], dnf: ["ninja-build"] },
    { met: compiler?.eigen, what: "Eigen 3.4", apt: ["libeigen3-dev"], dnf: ["eigen3-devel"] },
    { met: !tests || compiler?.gtest, what: "GoogleTest, for the C++ tests", apt: ["libgtest-dev"], dnf: ["gtest-devel"] },
  ];
  return needs.filter((need) => !need.met);
}
