// The reader's choice of light or dark, applied before the first paint.
//
// This is the one script that is not a module: it is small and blocking, so that a stored choice
// never flashes the other theme first. Without a stored choice the system's preference holds.
// Nothing else belongs here.
(() => {
  const KEY = "penstock:theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is refused in some private modes: the system's preference holds
    }
  }

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  }

  const choice = stored();
  if (choice === "light" || choice === "dark") root.dataset.theme = choice;

  addEventListener("DOMContentLoaded", () => {
    const toggle = document.getElementById("theme");
    const describe = () => {
      toggle.setAttribute("aria-pressed", String(isDark()));
    };
    toggle.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem(KEY, root.dataset.theme);
      } catch {
        // the choice then lasts as long as the page
      }
      describe();
    });
    system.addEventListener("change", describe);
    describe();
  });
})();
