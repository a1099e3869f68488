const dpo = require("dpo-kernels");
const { check } = require("./check.mjs");

check(dpo);
