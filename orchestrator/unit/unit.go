// Package unit is the orchestrator's connection to hsmd. It is made again
// whenever hsmd comes back.
package unit
