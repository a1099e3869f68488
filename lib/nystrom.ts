export function* nystromSteps(..._: unknown[]): Generator<never, never, void> {
  throw new Error("not here yet");
}
