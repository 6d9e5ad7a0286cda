/** The switch between the system's colours, light and dark. (page/theme.js sets them before the first paint.) */

const THEMES = { auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };

/**
 * Make `button` go through the themes and remember the choice.
 * @param {HTMLButtonElement} button
 * @param {ReturnType<import("./store.js").createStore>} store
 */
export function connectTheme(button, store) {
  const names = Object.keys(THEMES);
  let theme = names.includes(store.get("theme")) ? store.get("theme") : "auto";

  function show() {
    const [sign, words] = THEMES[theme];
    button.textContent = sign;
    button.setAttribute("aria-label", `Colours: ${words}`);
    button.title = `Colours: ${words}`;
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }

  button.addEventListener("click", () => {
    theme = names[(names.indexOf(theme) + 1) % names.length];
    show();
    store.set("theme", theme);
  });
  show();
}
