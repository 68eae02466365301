"use strict";
(() => {
  const read = id => JSON.parse(document.getElementById(id).textContent);
  const chosen = root => [...root.querySelectorAll("select[data-choice]")].map(s => Number(s.value));

  // three maps side by side, for every setting of the selects
  function mapBrowser(root) {
    const data = read(root.id + "-data");
    const selects = [...root.querySelectorAll("select[data-choice]")];
    const figures = [...root.querySelectorAll(".trio > figure")];
    const said = root.querySelector(".said");
    const show = () => {
      const [text, bars, ...panels] = data.frames[chosen(root).join(",")];
      figures.forEach((figure, k) => {
        const [image, title] = panels[k];
        figure.querySelector("figcaption").textContent = title;
        figure.querySelector("svg.map").setAttribute("aria-label", `${title}. ${text}`);
        figure.querySelector("image").setAttribute("href", "data:image/png;base64," + data.images[image]);
        for (const bar of figure.querySelectorAll("[data-group]")) bar.hidden = Number(bar.dataset.group) !== bars;
      });
      said.textContent = text;
      for (const button of root.querySelectorAll("button[data-step]")) {
        const select = selects[button.dataset.choice];
        const next = select.selectedIndex + Number(button.dataset.step);
        button.disabled = next < 0 || next >= select.options.length;
      }
    };
    const step = (select, by) => {
      const next = select.selectedIndex + by;
      if (next < 0 || next >= select.options.length) return;
      select.selectedIndex = next;
      show();
    };
    root.addEventListener("change", show);
    root.addEventListener("click", event => {
      const button = event.target.closest("button[data-step]");
      if (button) step(selects[button.dataset.choice], Number(button.dataset.step));
    });
    root.addEventListener("keydown", event => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by || event.target.tagName === "SELECT" || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      step(selects[selects.length - 1], by);
    });
    root.querySelector(".controls").hidden = false;
    show();
  }

  function scorecard(controls) {
    const { labels, cells } = read("scorecard-data");
    const rows = [...document.querySelectorAll("#scorecard tbody tr")];
    const show = () => {
      const [method, reference] = chosen(controls);
      rows.forEach((row, i) => {
        [...row.querySelectorAll("td")].forEach((cell, k) => {
          const [text, style] = cells[method][reference][i][k].split("|");
          cell.textContent = text;
          cell.className = style;
          if (style.endsWith(" ns")) {
            const aside = document.createElement("span");
            aside.className = "aside";
            aside.textContent = " (not significant)";
            cell.append(aside);
          }
        });
      });
      const same = method === reference ? ": choose two different methods" : "";
      document.getElementById("scorecard-said").textContent = `${labels[method]} against ${labels[reference]}${same}`;
    };
    controls.addEventListener("change", show);
    controls.hidden = false;
  }

  for (const root of document.querySelectorAll(".browser")) mapBrowser(root);
  const controls = document.getElementById("scorecard-controls");
  if (controls) scorecard(controls);
})();
