export function* gramSteps(..._: unknown[]): Generator<never, never, void> {
  throw new Error("not here yet");
}
