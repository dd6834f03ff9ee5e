/** The parts of the panel that aren't needed for its first picture. See rest.tsx for how they come. */

export { Invitation } from "./Invitation";
export { LendForm } from "./LendForm";
export { Lent } from "./Lent";
export { MemberDetails } from "./MemberDetails";
export { OfferDetails } from "./OfferDetails";
export { TaskDetails } from "./TaskDetails";
export { Timeline } from "./Timeline";
