import { type EChartsCoreOption, init } from "echarts";

/** Draws a chart without a browser; returns its SVG text. */
export function svgOf(option: EChartsCoreOption, size: { readonly width: number; readonly height: number }): string {
  const chart = init(null, null, { renderer: "svg", ssr: true, ...size });
  chart.setOption({ animation: false, ...option });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}
