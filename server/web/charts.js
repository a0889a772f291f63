// Draws: bars, gauges, days. Every drawing has a text that says the same.

import { s } from "./dom.js";

const WIDTH = 1000;

/** A bar of parts `{value, tone, name}` on a scale up to `total`. */
export function bar(parts, total, label, height = 14) {
  const whole = Math.max(total, parts.reduce((all, part) => all + part.value, 0), 1);
  let x = 0;
  const drawn = parts.filter((part) => part.value > 0).map((part) => {
    // A part of one device in a hundred thousand must still be seen.
    const width = Math.max((part.value / whole) * WIDTH, 3);
    const rect = s("rect", { x: x.toFixed(1), y: 0, width: width.toFixed(1), height, class: `tone-${part.tone}` },
      s("title", {}, `${part.name}: ${part.value}`));
    x += width;
    return rect;
  });
  return s("svg", { class: "bar", viewBox: `0 0 ${Math.max(WIDTH, x)} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, drawn);
}

/** A value on a scale with the mark of a threshold. */
export function gauge(value, threshold, scale, tone, label) {
  const at = (number) => Math.min(Math.max(number / scale, 0), 1) * WIDTH;
  return s("svg", { class: "gauge", viewBox: `0 0 ${WIDTH} 20`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    s("rect", { x: 0, y: 5, width: WIDTH, height: 10, class: "tone-empty" }),
    s("rect", { x: 0, y: 5, width: at(value).toFixed(1), height: 10, class: `tone-${tone}` }),
    s("rect", { x: Math.min(Math.max(at(threshold) - 2, 0), WIDTH - 4).toFixed(1), y: 0, width: 4, height: 20, class: "mark" }));
}

/** A column for each day: what was confirmed, and what was not. */
export function days(rows, label) {
  const height = 72;
  const most = Math.max(...rows.map((row) => row.good + row.bad), 1);
  const step = WIDTH / rows.length;
  const columns = rows.map((row, index) => {
    const [good, bad] = [(row.good / most) * height, (row.bad / most) * height];
    const box = (y, tall, tone) => s("rect", {
      x: (index * step + step * 0.12).toFixed(1), y: y.toFixed(1), width: (step * 0.76).toFixed(1), height: tall.toFixed(1), class: `tone-${tone}`,
    });
    return s("g", {}, s("title", {}, `${row.name}: ${row.good} confirmed, ${row.bad} not`),
      box(height - 1, 1, "empty"), box(height - good, good, "good"), box(height - good - bad, bad, "bad"));
  });
  return s("svg", { class: "days", viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, columns);
}
