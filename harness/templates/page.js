// Puts the living charts over the static ones. If anything here fails, the static ones stay.
"use strict";
(async () => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const options = {
    actions: false,
    ast: true, // interpret expressions: the page's policy forbids compiling them
    defaultStyle: false, // the policy allows one style sheet, the page's own
    renderer: "svg", // styled by the page, light or dark, as the static charts are
    tooltip: { disableDefaultStyle: true },
  };
  for (const [identity, spec] of Object.entries(specs)) {
    const figure = document.getElementById(identity);
    const still = figure.querySelector(".still svg");
    const live = figure.querySelector(".live");
    // The static chart scales with its column; the living one is laid out anew for the width.
    const natural = Number(still.getAttribute("width"));
    const room = still.parentElement.clientWidth;
    const width = Math.max(180, Math.floor(spec.width + room - natural));
    await vegaEmbed(live, { ...spec, width }, options);
    const drawn = live.querySelector("svg");
    drawn.setAttribute("role", "img");
    drawn.setAttribute("aria-label", still.getAttribute("aria-label"));
    figure.classList.add("is-live");
  }
})();
