// Where unsaved edits are kept: in the browser's storage, one place for each tab and project. A tab holds a lock on its
// place as long as it lives; what a tab that is gone has left is taken over by the next one of the same project.

const PREFIX = "hemalum.unsaved.";

export interface Tabs {
  write(text: string | null): void;
  adopt(project: string): void;
}

export function keepTabs(take: (text: string) => void, onFull: () => void): Tabs {
  let mine: string | null = null; // once the project is known; before there is nothing to keep
  return {
    write: (text) => {
      if (mine === null) return;
      if (text === null) return localStorage.removeItem(mine);
      try {
        localStorage.setItem(mine, text);
      } catch (error) {
        if (!(error instanceof DOMException)) throw error;
        onFull();
      }
    },
    adopt: (project) => {
      const places = `${PREFIX}${project}.`;
      if (mine === null) {
        mine = places + crypto.randomUUID();
        void navigator.locks.request(mine, () => new Promise<never>(() => {}));
      }
      for (const key of Object.keys(localStorage).filter((name) => name.startsWith(places) && name !== mine)) {
        void navigator.locks.request(key, { ifAvailable: true }, (lock) => {
          const text = lock && localStorage.getItem(key);
          if (!text) return;
          take(text); // which writes it to this tab's own place
          localStorage.removeItem(key);
        });
      }
    },
  };
}
