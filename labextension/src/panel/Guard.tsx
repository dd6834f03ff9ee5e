/** A guard around a part of the panel: if an unexpected message breaks it, words replace it and the other parts continue. */

import { Component, type ComponentChildren } from "preact";

import { useEnvironment } from "./environment";
import { Button } from "./parts";

export class Guard extends Component<{ children: ComponentChildren }, { failed: boolean }> {
  override state = { failed: false };

  override componentDidCatch(): void {
    this.setState({ failed: true });
  }

  override render() {
    return this.state.failed ? <Failed onAgain={() => this.setState({ failed: false })} /> : this.props.children;
  }
}

function Failed({ onAgain }: { onAgain: () => void }) {
  const { control, t } = useEnvironment();
  return (
    <div class="p2p-later" role="alert">
      <p>{t("The panel can't show what the kernel sends. They may be of different versions: reload the page to find out.")}</p>
      <Button
        name={t("Try again to show this")}
        onClick={() => {
          control.askAgain();
          onAgain();
        }}
      >
        {t("Try again")}
      </Button>
    </div>
  );
}
