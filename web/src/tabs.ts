// Where unsaved edits are kept: in the browser's storage, one place for each tab. A tab holds a lock on its place as
// long as it lives; what a tab that is gone has left is taken over by the next one.

const PREFIX = "hemalum.unsaved.";

export interface Tabs {
  write(text: string | null): void;
  adopt(): void;
}

export function keepTabs(take: (text: string) => void): Tabs {
  const mine = PREFIX + crypto.randomUUID();
  void navigator.locks.request(mine, () => new Promise<never>(() => {}));
  return {
    write: (text) => (text === null ? localStorage.removeItem(mine) : localStorage.setItem(mine, text)),
    adopt: () => {
      for (const key of Object.keys(localStorage).filter((name) => name.startsWith(PREFIX) && name !== mine)) {
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
