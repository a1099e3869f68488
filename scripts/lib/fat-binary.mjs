// What nvcc leaves in an object file for each architecture: machine code as ELF files, and PTX. cuobjdump shows the same, but not every toolkit has it.
import { spawnSync } from "node:child_process";
import * as zlib from "node:zlib";
import { Failure } from "./process.mjs";

const text = (bytes, at) => bytes.toString("latin1", at, bytes.indexOf(0, at));

/** The sections of a 64-bit ELF file: { name, begin, size, link }. */
function sectionsOf(elf) {
  const [table, count, names] = [Number(elf.readBigUInt64LE(40)), elf.readUInt16LE(60), elf.readUInt16LE(62)];
  const sections = Array.from({ length: count }, (_, i) => {
    const at = table + 64 * i;
    const [begin, size] = [Number(elf.readBigUInt64LE(at + 24)), Number(elf.readBigUInt64LE(at + 32))];
    return { at, begin, size };
  });
  return sections.map(({ at, begin, size }) => ({ name: text(elf, sections[names].begin + elf.readUInt32LE(at)), begin, size }));
}

function decompressed(bytes) {
  if (zlib.zstdDecompressSync) return zlib.zstdDecompressSync(bytes);
  const { status, stdout } = spawnSync("zstd", ["-dc"], { input: bytes, maxBuffer: 2 ** 30 });
  if (status !== 0) throw new Failure("PTX in objects is compressed with zstd: needs Node.js 22.15 or newer, or the command zstd");
  return stdout;
}

const MAGIC = 0xba55ed50;
const KINDS = { 1: "ptx", 2: "elf" };

/** The images of an object file: { kind: "elf" | "ptx", architecture, bytes() }. */
export function imagesOf(object) {
  const section = sectionsOf(object).find(({ name }) => name === ".nv_fatbin");
  if (!section) return [];
  const images = [];
  for (let at = section.begin; at < section.begin + section.size; ) {
    if (object.readUInt32LE(at) !== MAGIC) throw new Failure("unknown form of a fat binary");
    const end = at + object.readUInt16LE(at + 6) + Number(object.readBigUInt64LE(at + 8));
    let image = at + object.readUInt16LE(at + 6);
    while (image < end) {
      const begin = image + object.readUInt32LE(image + 4);
      const padded = Number(object.readBigUInt64LE(image + 8));
      const compressed = object.readUInt32LE(image + 16);
      const bytes = object.subarray(begin, begin + (compressed || padded));
      images.push({
        kind: KINDS[object.readUInt16LE(image)],
        architecture: object.readUInt32LE(image + 28),
        bytes: () => (compressed ? decompressed(bytes) : bytes),
      });
      image = begin + padded;
    }
    at = Math.ceil(end / 8) * 8;
  }
  return images;
}

/** What .nv.info says of a function. */
const REGISTERS = 0x2f;
const STACK_FRAME = 0x11;
/** What the system takes of each block's shared memory, counted with it. */
const SYSTEM_SHARED = 1024;

/** The kernels of a machine code image: { symbol, registers, local (bytes a thread), shared (static bytes) }. */
export function kernelsOf(elf, architecture) {
  const sections = sectionsOf(elf);
  const named = (name) => sections.find((section) => section.name === name);
  const [symbols, strings, info] = [named(".symtab"), named(".strtab"), named(".nv.info")];
  const symbolOf = (index) => text(elf, strings.begin + elf.readUInt32LE(symbols.begin + 24 * index));
  const kernels = new Map();
  const entry = (symbol) => kernels.get(symbol) ?? kernels.set(symbol, { symbol, registers: 0, local: 0 }).get(symbol);
  for (let at = info?.begin; at < info?.begin + info?.size; ) {
    const [form, attribute, size] = [elf.readUInt8(at), elf.readUInt8(at + 1), elf.readUInt16LE(at + 2)];
    const hasValues = form === 4;
    if (hasValues && attribute === REGISTERS) entry(symbolOf(elf.readUInt32LE(at + 4))).registers = elf.readUInt32LE(at + 8);
    if (hasValues && attribute === STACK_FRAME) entry(symbolOf(elf.readUInt32LE(at + 4))).local = elf.readUInt32LE(at + 8);
    at += 4 + (hasValues ? size : 0);
  }
  return [...kernels.values()]
    .filter(({ symbol }) => named(`.nv.constant0.${symbol}`)) // the parameters of a launch
    .map((kernel) => {
      const size = named(`.nv.shared.${kernel.symbol}`)?.size ?? 0;
      return { ...kernel, shared: architecture >= 90 ? Math.max(0, size - SYSTEM_SHARED) : size };
    });
}
