interface CudaLibrary {
  readonly prefix: string;
  readonly header: string;
  readonly file: string;
  readonly wheel: string;
}
export const LIBRARIES: readonly CudaLibrary[];
export const HEADERS: string;
export function functionsOf(library: CudaLibrary): string[];
