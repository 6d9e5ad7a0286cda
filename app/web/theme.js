// Not a module: it runs before the first paint, so that a dark page never flashes white.
(() => {
  const name = "homegrown.v1:" + new URL(".", document.baseURI).pathname + ":theme";
  let theme = null;
  try {
    theme = JSON.parse(localStorage.getItem(name));
  } catch {
    // Storage is forbidden or holds something else: the system's own colours do.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
