import { shapesFor } from "../shapes.js";
import type { Select, SurveyCase } from "./case.js";
import { divergenceCases } from "./divergences.js";
import { featureCases } from "./features.js";
import { kernelCases } from "./kernels.js";
import { logProbCases } from "./log-probs.js";
import { matrixCases } from "./matrices.js";
import { preferenceCases } from "./preference.js";

/** How many of the shapes: those of the benchmarks, the small ones among them, or one of each list. */
export type Extent = "full" | "small" | "tiny";

const SELECT: Record<Extent, Select> = {
  full: (shapes) => shapesFor("bench", shapes),
  small: (shapes) => shapes.filter(({ use }) => use === "both"),
  tiny: (shapes) => shapes.filter(({ name }) => name === "awkward"),
};

export function surveyCases(extent: Extent): SurveyCase[] {
  return [logProbCases, preferenceCases, divergenceCases, kernelCases, matrixCases, featureCases].flatMap((cases) => cases(SELECT[extent]));
}
