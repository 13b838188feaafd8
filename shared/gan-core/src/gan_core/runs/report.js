"use strict";
// A slider under the generated samples goes through the steps below. Without it, the page shows the same pictures.
const steps = [...document.querySelectorAll(".strip figure")].filter((step) => step.querySelector("img"));
const generated = document.querySelector(".generated");
if (generated && generated.querySelector("img") && steps.length > 1) {
  const image = generated.querySelector("img");
  const caption = generated.querySelector("figcaption");
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: steps.length - 1 });
  slider.value = steps.length - 1;
  slider.setAttribute("aria-label", "Step of the generated samples");
  slider.addEventListener("input", () => {
    const step = steps[slider.value].querySelector("img");
    const words = `Generated at ${step.alt.toLowerCase()}`;
    image.src = step.src;
    image.alt = caption.textContent = words;
    slider.setAttribute("aria-valuetext", words);
  });
  generated.append(slider);
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
