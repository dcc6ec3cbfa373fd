/** Draws the speed of each way to move frames, relative to rsync's daemon, as SVG. */
import { type Comparison, ratiosTo } from "./compare.ts";
import { median, spread } from "./measure.ts";

const labelWidth = 124;
const panelWidth = 270;
const panelGap = 16;
const barHeight = 18;
const rowHeight = 30;
const top = 78;

const style = `
    .paper { fill: #f7f5f0 }
    .bar { fill: #b9b3a4 }
    .own { fill: #d9822b }
    .spread { stroke: #1b1c1e; stroke-width: 1.5 }
    .one { stroke: #5f6268; stroke-dasharray: 3 3 }
    text { font: 13px system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; fill: #1b1c1e; paint-order: stroke; stroke: #f7f5f0; stroke-width: 4 }
    .head { font-size: 15px; font-weight: 600 }
    .dim { fill: #5f6268 }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #16191c }
      .bar { fill: #5a626b }
      .own { fill: #d9822b }
      .spread { stroke: #e9e5dc }
      .one { stroke: #a7acb3 }
      text { fill: #e9e5dc; stroke: #16191c }
      .dim { fill: #a7acb3 }
    }
  `;

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

/**
 * @param comparisons one for each panel
 * @param machine what the caption says of the machine and the rounds
 */
export function speedChart(comparisons: readonly Comparison[], machine: string): string {
  const panels = comparisons.map(({ title, costs }) => {
    const reference = costs.get("rsync daemon") ?? [];
    // The floor is no program that a user could choose.
    const rivals = [...costs].filter(([name]) => name !== "floor" && reference.length > 0);
    const bars = rivals.map(([name, list]) => [name, ratiosTo(reference, list).speed] as const);
    return { title, bars: new Map(bars) };
  });
  const names = [...new Set(panels.flatMap(({ bars }) => [...bars.keys()]))];
  const longest = Math.max(1, ...panels.flatMap(({ bars }) => [...bars.values()].flat()));
  // The figures beside the longest bar need room.
  const scale = (panelWidth - 134) / longest;
  const width = 24 + labelWidth + panels.length * (panelWidth + panelGap);
  const height = top + names.length * rowHeight + 24;
  const parts: string[] = [];
  for (const [row, name] of names.entries()) {
    const y = top + row * rowHeight + barHeight - 4;
    parts.push(
      `<text x="${24 + labelWidth - 12}" y="${y}" text-anchor="end">${escape(name)}</text>`,
    );
  }
  for (const [column, { title, bars }] of panels.entries()) {
    const left = 24 + labelWidth + column * (panelWidth + panelGap);
    parts.push(`<text class="head" x="${left}" y="60">${escape(title)}</text>`);
    const x = (left + scale).toFixed(1);
    parts.push(`<path class="one" d="M${x} ${top - 8}V${top + names.length * rowHeight - 4}" />`);
    for (const [row, name] of names.entries()) {
      const ratios = bars.get(name) ?? [];
      if (ratios.length === 0) continue;
      const y = top + row * rowHeight;
      const at = (ratio: number): string => (left + ratio * scale).toFixed(1);
      const [least, most] = [Math.min(...ratios), Math.max(...ratios)];
      const middle = y + barHeight / 2;
      const kind = name.startsWith("frames") ? "own" : "bar";
      const length = (median(ratios) * scale).toFixed(1);
      parts.push(
        `<rect class="${kind}" x="${left}" y="${y}" width="${length}" height="${barHeight}" />`,
        `<path class="spread" d="M${at(least)} ${middle}H${at(most)}" />`,
        `<text x="${left + most * scale + 7}" y="${y + barHeight - 4}">${least === most ? median(ratios) : spread(ratios)}</text>`,
      );
    }
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title">
  <title id="title">Speed of frames and others, relative to rsync's daemon</title>
  <style>${style}</style>
  <rect class="paper" width="${width}" height="${height}" rx="12" />
  <text x="24" y="32">Times as fast as rsync's daemon (broken line); more is better. <tspan class="dim">${escape(machine)}</tspan></text>
  ${parts.join("\n  ")}
</svg>
`;
}
