/** The parts of the panel that its first picture doesn't need. rest.ts loads them. */

export { Invitation } from "./Invitation";
export { LendForm } from "./LendForm";
export { Lent } from "./Lent";
export { MemberDetails } from "./MemberDetails";
export { OfferDetails } from "./OfferDetails";
export { Questions } from "./Questions";
export { TaskDetails } from "./TaskDetails";
export { Timeline } from "./Timeline";
export { Visitors } from "./Visitors";
