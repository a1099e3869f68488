/** Stable codes of the errors this package throws. */
export type ErrorCode =
  | "ERR_SHAPE"
  | "ERR_DTYPE"
  | "ERR_RANGE"
  | "ERR_NONFINITE"
  | "ERR_BACKEND"
  | "ERR_DISPOSED"
  | "ERR_ABORTED"
  | "ERR_MEMORY"
  | "ERR_DATA"
  | "ERR_NOT_PSD";

/** What every error of this package is. */
export abstract class DpoKernelsError extends Error {
  abstract readonly code: ErrorCode;
  /** The first bad element of the argument that the message names, where there is one. */
  readonly index: number | undefined;

  constructor(message: string, { index, cause }: { index?: number | undefined; cause?: unknown } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.index = index;
  }
}

/** A tensor has the wrong shape, or is missing. */
export class ShapeError extends DpoKernelsError {
  readonly code = "ERR_SHAPE";
}

/** A value is of the wrong kind: another dtype, or no tensor at all. */
export class DTypeError extends DpoKernelsError {
  readonly code = "ERR_DTYPE";
}

/** An option or an element lies outside what is allowed. */
export class OutOfRangeError extends DpoKernelsError {
  readonly code = "ERR_RANGE";
}

/** An input holds NaN or an infinity where none may be. */
export class NonFiniteError extends DpoKernelsError {
  readonly code = "ERR_NONFINITE";
}

/** No backend can run the call; the message says what was found and what is needed. */
export class BackendError extends DpoKernelsError {
  readonly code = "ERR_BACKEND";
}

/** A tensor was disposed of, or its memory was detached. */
export class DisposedError extends DpoKernelsError {
  readonly code = "ERR_DISPOSED";
}

/** The call's AbortSignal was aborted; `cause` is the signal's reason. */
export class AbortedError extends DpoKernelsError {
  readonly code = "ERR_ABORTED";
}

/** Memory ran out, does not suffice, or is in use by another call. */
export class MemoryError extends DpoKernelsError {
  readonly code = "ERR_MEMORY";
}

/** A record or a saved state cannot be read. */
export class DataError extends DpoKernelsError {
  readonly code = "ERR_DATA";
}

/** A matrix that must be positive semi-definite is not. */
export class NotPsdError extends DpoKernelsError {
  readonly code = "ERR_NOT_PSD";
}

/** In the order of dpo_status in native/core/status.h. */
const ERRORS_BY_STATUS = [
  undefined,
  ShapeError,
  DTypeError,
  OutOfRangeError,
  NonFiniteError,
  BackendError,
  DisposedError,
  AbortedError,
  MemoryError,
  DataError,
  NotPsdError,
] as const;

/** How the addon reports a call that failed. */
export interface NativeFailure {
  status: number;
  index: number;
  message: string;
}

export function errorOf(failure: NativeFailure, cause?: unknown): DpoKernelsError {
  const ErrorClass = ERRORS_BY_STATUS[failure.status] ?? BackendError;
  return new ErrorClass(failure.message, { index: failure.index >= 0 ? failure.index : undefined, cause });
}
