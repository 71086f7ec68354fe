(function () {
  var root = document.documentElement, themes = ["auto", "light", "dark"];
  root.classList.add("scripted");
  document.getElementById("theme").addEventListener("click", function () {
    var next = themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length];
    if (next === "auto") delete root.dataset.theme; else root.dataset.theme = next;
    this.textContent = "◐ " + next;
    this.setAttribute("aria-label", "Theme: " + next);
  });
  document.querySelectorAll("button.more").forEach(function (button) {
    button.addEventListener("click", function () {
      var open = root.classList.toggle("captions");
      document.querySelectorAll("button.more").forEach(function (other) {
        other.textContent = open ? "Shorten captions" : "Full captions and uids";
        other.setAttribute("aria-pressed", String(open));
      });
    });
  });
})();
