import { readFileSync } from "node:fs";

/** What the package runs in; none of it needs the addon. */
export interface Environment {
  version: string;
  node: string;
  platform: string;
  arch: string;
  /** Present on Linux. */
  libc?: string;
}

export function packageVersion(): string {
  // From lib/cli (in tests) as from dist/cli, the package's root is two folders up.
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
  return version;
}

export function environment(): Environment {
  const { platform, arch, version: node } = process;
  return { version: packageVersion(), node, platform, arch, ...(platform === "linux" && { libc: libcOfLinux() }) };
}

function libcOfLinux(): string {
  const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime === undefined ? "not glibc" : `glibc ${header.glibcVersionRuntime}`;
}
