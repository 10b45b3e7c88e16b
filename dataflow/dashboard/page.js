(() => {
  const button = document.getElementById("theme");
  const label = () => {
    button.textContent = document.documentElement.dataset.theme === "dark" ? "Light" : "Dark";
  };
  button.addEventListener("click", () => { window.switchTheme(); label(); });
  label();

  const loading = document.getElementById("loading");
  const slow = setTimeout(() => {
    loading.textContent = "The page does not load. Where it is opened by another name than the "
      + "one it was started for, start it with --origin " + location.host + ".";
  }, 20000);
  window.pageReady = () => { clearTimeout(slow); loading.remove(); };

  // The process that serves the page has ended, or the network has: ask until it is back.
  window.pageLost = () => {
    const lost = document.getElementById("lost");
    lost.hidden = false;
    lost.textContent = "No connection to the process that serves this page: what is shown stands "
      + "still. It loads again by itself as soon as the process answers.";
    const ask = () => fetch(location.href, { cache: "no-store" })
      .then((answer) => answer.ok ? location.reload() : setTimeout(ask, 2000))
      .catch(() => setTimeout(ask, 2000));
    setTimeout(ask, 1000);
  };
})();
