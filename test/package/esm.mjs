import * as dpo from "dpo-kernels";
import { check } from "./check.mjs";

check(dpo);
