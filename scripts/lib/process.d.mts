/** The file that a command's name stands for, or undefined. */
export function which(name: string): string | undefined;
