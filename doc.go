// Package carillon runs distributed jobs and schedules inside existing
// services. Instances of a service coordinate through Redis alone.
package carillon
