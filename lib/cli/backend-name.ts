import type { Backend } from "../backend.js";

/** What useBackend calls it: "cpu:x86-64-v3", or the bare name of a backend without variants. */
export function backendName({ name, variant }: Backend): string {
  return variant === "" ? name : `${name}:${variant}`;
}
