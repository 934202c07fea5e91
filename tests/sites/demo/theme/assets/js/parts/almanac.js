// The date, as an almanac would put it.
(() => {
  const place = document.querySelector("[data-today]");
  if (!place) return;
  const today = new Date();
  place.textContent = today.toLocaleDateString("en", { weekday: "long", day: "numeric", month: "long" });
})();
