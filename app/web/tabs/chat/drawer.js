/** A side of the page that slides over it where the window is narrow, and stands beside it where it is wide. */

const NARROW = matchMedia("(max-width: 900px)");

/**
 * @param {{panel: HTMLElement, button: HTMLButtonElement, behind: HTMLElement[], always?: boolean,
 *   remembered?: {get: () => boolean, set: (open: boolean) => void}}} options `behind`: what can't be used while it covers
 *   the page; `always`: in a wide window it is always there; `remembered`: else, whether it is
 */
export function createDrawer({ panel, button, behind, always = false, remembered = undefined }) {
  let open = false;
  panel.id ||= `drawer-${button.textContent.trim().toLowerCase()}`;
  button.setAttribute("aria-controls", panel.id);

  function show() {
    const covers = open && NARROW.matches;
    panel.hidden = !open;
    panel.classList.toggle("covers", covers);
    button.setAttribute("aria-expanded", String(open));
    for (const element of behind) element.inert = covers;
  }

  function set(next) {
    if (always && !NARROW.matches) return;
    const closing = open && !next;
    open = next;
    show();
    if (open) panel.querySelector("button, input, textarea")?.focus();
    else if (closing) button.focus();
    if (!NARROW.matches) remembered?.set(next);
  }

  function arrange() {
    open = NARROW.matches ? false : always || (remembered?.get() ?? false);
    show();
  }

  button.addEventListener("click", () => set(!open));
  panel.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && open) set(false);
  });
  NARROW.addEventListener("change", arrange);
  arrange();
  return {
    close: () => set(false),
    /** Close it if it covers the page. */
    giveWay() {
      if (open && NARROW.matches) set(false);
    },
  };
}
