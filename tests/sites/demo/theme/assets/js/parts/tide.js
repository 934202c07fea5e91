// Draws the day's tide from four heights, 6 hours 12 minutes apart, the first a high water.
(() => {
  const figure = document.querySelector("[data-tide]");
  if (!figure) return;
  const heights = figure.dataset.tide.split(" ").map(Number);
  const first = Number(figure.dataset.first);
  const apart = 6.2, width = 960, bottom = 190, scale = 29;

  const at = (hour) => {
    const turns = (hour - first) / apart;
    const turn = Math.floor(turns);
    const pick = (n) => heights[((n % 4) + 4) % 4];
    const way = (1 - Math.cos((turns - turn) * Math.PI)) / 2;
    return pick(turn) + (pick(turn + 1) - pick(turn)) * way;
  };
  const x = (hour) => (hour / 24) * width;
  const y = (hour) => bottom - at(hour) * scale;
  const clock = (hour) => {
    const minutes = Math.round(hour * 60);
    return `${String(Math.floor(minutes / 60)).padStart(2, "0")}:${String(minutes % 60).padStart(2, "0")}`;
  };

  const points = [];
  for (let hour = 0; hour <= 24; hour += 0.25) points.push(`${x(hour)} ${y(hour).toFixed(1)}`);
  const edge = `M${points.join("L")}`;
  const hours = [3, 6, 9, 12, 15, 18, 21];
  const day = new Date();
  const now = x(day.getHours() + day.getMinutes() / 60);
  figure.querySelector("svg").innerHTML = [
    ...hours.map((h) => `<path class="hour" d="M${x(h)} 20V${bottom}"/><text x="${x(h)}" y="212">${clock(h)}</text>`),
    `<path class="water" d="${edge}L${width} ${bottom}H0Z"/>`,
    `<path class="edge" d="${edge}"/>`,
    `<path class="now" d="M${now} 20V${bottom}"/>`,
  ].join("");

  document.querySelector("[data-facts]").innerHTML = heights
    .map((height, n) => ({ height, hour: first + n * apart, high: n % 2 === 0 }))
    .filter(({ hour }) => hour < 24)
    .map(({ height, hour, high }) =>
      `<div><dt>${high ? "High" : "Low"} water, ${clock(hour)}</dt><dd>${height.toFixed(1)} m</dd></div>`)
    .join("");
})();
