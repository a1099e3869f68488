#!/usr/bin/env node
import { parseArgs } from "node:util";
import { doctor } from "./doctor.js";
import { packageVersion } from "./environment.js";

const HELP = `Usage: dpo-kernels <command> [options]

Commands:
  doctor            say what the package runs on, and test every operation of the selected backend
    --backend NAME  test this one: cpu, cuda, cpu:x86-64-v3, …; default: DPO_KERNELS_BACKEND, else the best that runs
    --json          print JSON

Options:
  --help            print this
  --version         print the version

Exit code: 0 when all is well; 1 when an operation gives wrong numbers, or no backend runs; 2 when the command line is not understood.
`;

const [WELL, UNWELL, NOT_UNDERSTOOD] = [0, 1, 2];

class UsageError extends Error {}

/** The options that were given; throws UsageError for others. */
function optionsOf(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        backend: { type: "string" },
        json: { type: "boolean" },
        help: { type: "boolean", short: "h" },
        version: { type: "boolean" },
      },
    });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

async function main(args: readonly string[]): Promise<number> {
  const { values, positionals } = optionsOf(args);
  const { backend, json, help, version } = values;
  const [command, ...others] = positionals;
  if (help) return printed(HELP);
  if (version) return printed(`${packageVersion()}\n`);
  if (command === undefined) throw new UsageError("a command is missing");
  if (command !== "doctor") throw new UsageError(`unknown command ${JSON.stringify(command)}`);
  if (others.length > 0) throw new UsageError(`doctor: unexpected ${JSON.stringify(others[0])}`);
  return (await doctor({ backend, json })) ? WELL : UNWELL;
}

function printed(text: string): number {
  process.stdout.write(text);
  return WELL;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`dpo-kernels: ${error.message}\ndpo-kernels --help lists what there is\n`);
  process.exitCode = NOT_UNDERSTOOD;
}
