// Day and night, by hand.
(() => {
  const lamp = document.querySelector("[data-lamp]");
  if (!lamp) return;
  lamp.addEventListener("click", () => {
    const lit = document.documentElement.classList.toggle("by-night");
    lamp.setAttribute("aria-pressed", String(lit));
    lamp.textContent = lit ? "Put out the lamp" : "Light the lamp";
  });
})();
