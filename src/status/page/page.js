'use strict';
(() => {
  const parts = ['problems', 'runners', 'tokens', 'events', 'made'];
  const byId = (id) => document.getElementById(id);
  const live = byId('live');
  const form = byId('filter');
  let busy = false;
  let due = null;
  let stale = false;
  let source = null;

  const say = (text) => {
    live.hidden = false;
    if (live.textContent !== text) live.textContent = text;
  };

  const swap = (id, page) => {
    const [old, next] = [byId(id), page.getElementById(id)];
    if (!old || !next || old.isEqualNode(next)) return;
    const focused = old.contains(document.activeElement) ? document.activeElement.id : '';
    old.replaceWith(next);
    if (focused && byId(focused)) byId(focused).focus({ preventScroll: true });
  };

  // Asks for the page as it is now, and puts its parts into this one.
  const refresh = async () => {
    if (busy) {
      stale = true;
      return;
    }
    busy = true;
    stale = false;
    try {
      const answer = await fetch(location.href, { cache: 'no-store' });
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      if (!page.getElementById('runners')) {
        location.reload();
        return;
      }
      const [old, next] = [byId('summary'), page.getElementById('summary')];
      if (old.textContent !== next.textContent) old.textContent = next.textContent;
      old.className = next.className;
      document.title = page.title;
      parts.forEach((id) => swap(id, page));
    } catch {
      say('the daemon does not answer; trying again');
    } finally {
      busy = false;
      if (stale) soon(1000);
    }
  };

  const soon = (millis) => {
    if (due === null) {
      due = setTimeout(() => {
        due = null;
        refresh();
      }, millis);
    }
  };

  const listen = () => {
    if (source || document.hidden) return;
    source = new EventSource('/events');
    source.onopen = () => {
      say('live');
      soon(0);
    };
    source.onmessage = () => soon(100);
    source.addEventListener('status', () => soon(1500));
    source.onerror = () => {
      say('not connected; trying again');
      source.close();
      source = null;
      setTimeout(listen, 5000);
      soon(2000);
    };
  };

  const show = (address) => {
    history.replaceState(null, '', address);
    refresh();
  };

  const chosen = () => {
    const wanted = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      if (value && value !== 'attention') wanted.append(name, value);
    }
    const query = wanted.toString();
    show(query ? `/?${query}` : '/');
  };

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    chosen();
  });
  form.addEventListener('change', chosen);
  let typed = null;
  form.elements.q.addEventListener('input', () => {
    clearTimeout(typed);
    typed = setTimeout(chosen, 250);
  });

  // The links of headings and pages.
  document.addEventListener('click', (event) => {
    const link = event.target.closest('a[data-view]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    form.elements.sort.value = link.dataset.view;
    show(link.getAttribute('href'));
  });

  document.addEventListener('visibilitychange', () => {
    if (document.hidden) {
      if (source) source.close();
      source = null;
    } else {
      listen();
      soon(0);
    }
  });

  // Ages grow although nothing happens.
  setInterval(() => document.hidden || soon(0), 30000);
  listen();
})();
