(() => {
  document.title = document.querySelector("h1").textContent;
  const button = document.getElementById("theme");
  const label = () => {
    button.textContent = document.documentElement.dataset.theme === "dark" ? "Light" : "Dark";
  };
  button.addEventListener("click", () => { window.switchTheme(); label(); });
  label();

  const loading = document.getElementById("loading");
  const slow = setTimeout(() => {
    loading.textContent = "The page does not load: its websocket cannot connect. Restart the "
      + "dashboard with --origin " + location.origin + ", and let a proxy in between "
      + "forward websockets.";
  }, 20000);
  window.pageReady = () => { clearTimeout(slow); loading.remove(); };

  // The server or the network is down: retry until it is back.
  window.pageLost = () => {
    const lost = document.getElementById("lost");
    if (!lost.hidden) return;
    const since = new Date().toISOString().slice(11, 16);
    document.documentElement.classList.add("lost");
    lost.hidden = false;
    lost.textContent = `No connection to the server of this page since ${since} UTC: what is below `
      + "is from before. The page reloads by itself when the server answers.";
    const ask = () => fetch(location.href, { cache: "no-store" })
      .then((answer) => answer.ok ? location.reload() : setTimeout(ask, 2000))
      .catch(() => setTimeout(ask, 2000));
    setTimeout(ask, 1000);
  };
})();
