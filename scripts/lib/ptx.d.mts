export interface WideAccesses {
  readonly loads: number;
  readonly stores: number;
}
export function wideAccesses(ptx: string): Map<string, WideAccesses>;
