/** How landmarks are chosen from rows. */
export const LANDMARK_METHODS = ["uniform", "kmeans++", "leverage"] as const;
export type LandmarkMethod = (typeof LANDMARK_METHODS)[number];

/** What a kernel takes from data. */
export interface KernelFit {
  /** sigma = the median distance of the rows, for a median of −½ of log k. */
  readonly sigma?: "median";
  /** mahalanobis: the inverse standard deviations, shrunk towards each other and scaled to a median of −½ of log k. */
  readonly factor?: "diagonal";
  /** spectral: how many rows to take as landmarks, and how. */
  readonly landmarks?: number;
  readonly method?: LandmarkMethod;
  readonly seed?: number;
  /** spectral: how many eigenfunctions to keep. */
  readonly rank?: number;
}
