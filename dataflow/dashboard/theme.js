// Runs before anything is drawn: use the choice made in this browser, else the system preference.
// The server colors the charts by the cookie, so a first visit may load twice.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const cookie = () => (document.cookie.match(/(?:^|; )theme=(\w+)/) || [])[1];
  const choice = () => localStorage.getItem("theme") || (system.matches ? "dark" : "light");
  const show = () => {
    const was = cookie();
    const now = choice();
    document.documentElement.dataset.theme = now;
    document.cookie = `theme=${now}; path=/; SameSite=Lax; max-age=31536000`;
    const charts = location.pathname.endsWith("/instance");
    if (charts && (was || "light") !== now && cookie() === now) location.reload();
  };
  show();
  system.addEventListener("change", show);
  window.switchTheme = () => {
    localStorage.setItem("theme", choice() === "dark" ? "light" : "dark");
    show();
  };
})();
